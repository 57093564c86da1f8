"""Remote caches: results and blobs that several machines share, none of which is ever trusted."""
