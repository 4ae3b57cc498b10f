"""``edpct package``: a student with its report, its model card and a script, in one file that says what it is."""
