"""What goes over the network, and nothing else: see it, pass it on untouched, or send it elsewhere.

`seam` wraps the two HTTP clients that LLM libraries use, `scope` says whose call it is, `streams`
passes streamed bodies through and reads them afterwards, `redirect` sends a request to another
server, `secrets` knows what a key looks like. None of them knows datasets, files or notebooks.
"""
