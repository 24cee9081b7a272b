"""NumPy arrays on the simulated device; torch is not needed. Arrays from shmgemm.empty lie in the
shared region and are used in place, others are copied there once.
"""

import numpy as np

import shmgemm


def main() -> None:
    random = np.random.default_rng(0)
    # Where torch is installed `empty` gives a tensor; this is the same memory as an array.
    x = np.asarray(shmgemm.empty(32, 128))
    weight = np.asarray(shmgemm.empty(256, 128))
    x[...] = random.standard_normal(x.shape)
    weight[...] = random.standard_normal(weight.shape)
    bias = random.standard_normal(256).astype(np.float32)

    with shmgemm.profile() as prof:
        y = shmgemm.gemm(x, weight.T)
        z = shmgemm.linear(x, weight, bias)

    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(y, exact, atol=1e-3)
    np.testing.assert_allclose(z, exact + bias, atol=1e-3)
    print(prof.table(by="op"))
    print(prof.coverage)


if __name__ == "__main__":
    main()
