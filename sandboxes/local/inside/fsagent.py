"""Starts the file system agent; the work is in `fswork`, which is kept compiled."""

import sys

sys.path.insert(0, sys.argv[0].rpartition("/")[0])

import fswork

fswork.main()
