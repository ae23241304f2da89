"""Images from one place to another: registries, OCI layouts, archives, the local store, and others' stores by skopeo.

    words     what `TRANSPORT:…` on a command line means      content         the documents and blobs of an image
    sources   where an image is read from                     destinations    where it is written to
    referrers what refers to images in layouts, attach        files that are pushed so    remote   a look at a registry

Manifests and blobs go over byte for byte, so that digests stay what they were; only docker-archive has another form.
"""
