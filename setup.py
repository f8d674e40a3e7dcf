"""Installs moe_jax: `pip install -e .`, with extras for devices, tests and more."""

from setuptools import find_packages, setup

setup(
    name="moe_jax",
    version="0.1.0",
    description="Sparse Mixture-of-Experts research in JAX and Flax",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["moe_jax*", "configs*", "experiments*"]),
    install_requires=[
        "absl-py",
        "array-record",
        "etils[epath]",
        "flax>=0.12",
        "grain>=0.2.18",
        "importlib_resources",  # tensorflow-datasets uses it and does not ask for it
        "jax>=0.10",
        "jaxtyping",
        "matplotlib",
        "ml_collections>=1.1",
        "numpy",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8,<1.0",
        "pyarrow",
        "rich",
        "scipy",
        "sentencepiece",
        "tensorboardX",
        "tensorflow-datasets>=4.9.10",
        "tokenizers",
        "zstandard",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "interop": ["safetensors"],
        # Other libraries' models, which tests compare with.
        "oracle": ["safetensors", "torch==2.13.0", "transformers>=5"],
        "test": [
            "beartype",
            "hypothesis",
            # The compiler for TPUs, for tests that read what it makes of a step.
            "jax[tpu]; sys_platform == 'linux' and platform_machine == 'x86_64'",
            "pytest",
            "pytest-xdist",
            "ruff",
        ],
    },
)
