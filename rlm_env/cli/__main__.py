"""`python -m rlm_env.cli`, for example under torchrun."""

import sys

from rlm_env.cli.main import main

sys.exit(main())
