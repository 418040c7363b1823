"""Nearest neighbours and nearest centers: distances are sums over encrypted features."""
