"""moto's S3 server, whose conditional puts are atomic, as those of S3 are.

``python tests/support/s3_server.py -H HOST -p PORT``. moto looks whether an object is there and
stores it in two steps; under load two of many threads that create it were both told that they had.
"""

import functools
import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_PUTTING = threading.Lock()
_put = S3Response.put_object


@functools.wraps(_put)
def _put_alone(response: S3Response) -> Any:
    with _PUTTING:
        return _put(response)


if __name__ == "__main__":
    S3Response.put_object = _put_alone  # type: ignore[method-assign]
    main()
