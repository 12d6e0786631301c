#!/usr/bin/env python3
"""Starts a search: `python run_search.py --help`."""

import sys

from nas.cli import search_main

if __name__ == "__main__":  # workers are spawned and import this file
    sys.exit(search_main())
