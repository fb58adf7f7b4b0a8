"""Exit with 0 if the Dask process of this container answers, for HEALTHCHECK."""

import os
import sys
import urllib.request

ADDRESS = os.environ["TILEWRIGHT_HEALTH"]

try:
    with urllib.request.urlopen(ADDRESS, timeout=4):
        pass
except OSError as err:
    sys.exit(f"{ADDRESS}: {err}")
