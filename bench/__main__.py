"""Makes `python -m bench` the command."""

import sys

from bench.run import main

sys.exit(main())
