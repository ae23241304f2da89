"""Caches elsewhere: what `--cache-from` takes and `--cache-to` gives.

    options    the words of both options as values         place      the contract of a place, and how it is opened
    local, remote, s3    places: directory, registry, bucket    inline     records in an image's own config
    reading    a place's documents into an index           imports    what a build takes, when it needs it
    exports    what a build gives, as it is built          mounts     cache mounts as layers

Nothing here is loaded by a build that has neither option. The format is `cache.exchange`.
"""
