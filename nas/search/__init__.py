"""What is searched, and how: space, study, trials, final trainings, the front."""
