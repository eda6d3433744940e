import shutil

import pytest

from tests.system import tiny


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A bundle that no test may change."""
    return tiny.write(tmp_path_factory.mktemp("bundles") / "colours")


@pytest.fixture
def folder(written, tmp_path):
    """A copy of the bundle for one test to damage."""
    return shutil.copytree(written, tmp_path / "colours")
