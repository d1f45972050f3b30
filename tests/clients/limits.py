"""The item size limit that every client meets sooner or later.

memcached counts key and item header in `-I` (1 MiB by default), so the largest value is a little smaller than that;
how much smaller is the server's own business, and no client depends on it.
"""

ITEM_SIZE_LIMIT_BYTES = 1024 * 1024
LARGEST_PORTABLE_VALUE_BYTES = ITEM_SIZE_LIMIT_BYTES - 1024
