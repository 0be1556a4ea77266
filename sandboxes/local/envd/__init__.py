"""E2B envd for one sandbox: processes, files and terminals over HTTP and RPC."""
