"""What a file says of itself beside its pixels: EXIF, XMP, tables, generators' own marks, signed manifests."""
