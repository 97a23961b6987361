"""What pyproject.toml cannot say: configs/ lies beside the package and travels inside it."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["jaxdna*"], exclude=["*.__pycache__", "*.egg-info"]),
        "jaxdna.configs",
    ],
    package_dir={"jaxdna.configs": "configs"},
)
