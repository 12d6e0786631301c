"""report.html of a run: `page.write_report` puts it together from the files of the run folder."""
