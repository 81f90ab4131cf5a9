"""smoothcluster on etcd 3.4 or newer, through the gRPC stubs of python3-etcd3."""

from smoothcluster_etcd.adapter import EtcdBackend

__all__ = ["EtcdBackend"]
