"""One file that carries a student: reading it as a stranger's file, and finding the engine in it that opens here."""
