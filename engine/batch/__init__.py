"""Many images in one run: each with its own result and records, all on one cluster.

::

    finding   which images              naming    what their results are called
    working   one image                 driving   all of them, several at a time
    document  what is known of each     summary   what people read of it
    rows      a row from a report       looking   how far a batch is, from outside
    options   what holds for all        beginning what is refused before anything is written

Import from the modules: those that only look need neither torch nor Dask's scheduler.
"""
