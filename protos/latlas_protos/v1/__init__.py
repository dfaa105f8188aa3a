"""Version 1 of the wire format; everything but the .proto files is generated from them."""
