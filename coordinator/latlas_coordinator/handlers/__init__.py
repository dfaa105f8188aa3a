"""What the coordinator does for each request: request values, a store and the time in, values out.

Handlers block and know nothing of gRPC; servicers translate messages and choose the thread.
"""
