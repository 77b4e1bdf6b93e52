"""``mmsa-lib`` as a program whose warm kernels import nothing heavy in advance: small notebooks are fast with it.

It is a preload of Dask workers as well.
"""

import signal
import sys

from mmsa_lib.experiments import sweeps

sweeps.DEFAULT_IMPORTS = ()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    from mmsa_lib.cli import main

    sys.exit(main())
