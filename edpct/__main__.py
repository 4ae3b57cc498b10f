"""``python -m edpct``."""

from edpct.cli.main import main

main()
