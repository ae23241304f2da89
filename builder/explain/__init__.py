"""Why a vertex was found in the cache or was not: notes beside records, the nearest former one, and what differs."""
