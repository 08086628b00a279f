"""Run the command line as ``python -m sklearn_skmm``."""

import sys

from sklearn_skmm.cli._main import main

if __name__ == "__main__":
    sys.exit(main())
