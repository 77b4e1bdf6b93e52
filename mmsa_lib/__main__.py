"""``python -m mmsa_lib`` is ``mmsa-lib``."""

import sys

from mmsa_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
