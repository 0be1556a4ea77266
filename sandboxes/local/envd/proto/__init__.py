"""Stubs generated from the `.proto` files beside them.

Make them again after a change, with the versions pinned in `pyproject.toml`:
`uvx --from grpcio-tools --with protoc-gen-py==0.6.0 --with
protoc-gen-connectrpc==0.12.1 python-grpc-tools-protoc -I . --py_out=.
--connectrpc_out=. *.proto`, in this folder.
"""
