"""SCALE-Sim 3.0.0's files: its cfg and GEMM csv in, its three reports out, without running it."""
