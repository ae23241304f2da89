"""The forms a result is written in: images as documents and blobs, archives, flattened trees."""
