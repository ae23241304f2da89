"""Registries: the OCI distribution protocol as a client, and images between registries and the local store.

    errors        what went wrong, in words of the registry        proxies, tls, transport   one HTTP exchange
    credentials, helpers, logins   who we are, from config files    challenge, auth           how we say so to whom
    configuration, places          where an image's name leads      session                   exchanges until one holds
    repository, blobstream, upload the protocol's nouns and verbs   client                    opens repositories

Nothing here is loaded by a build that finds its images in the store. Source: OCI distribution-spec 1.1; the Docker
Registry HTTP API V2 and its token authentication.
"""
