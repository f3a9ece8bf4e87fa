"""A build backend that says the metadata of the package named in GOPEFT_SDIST and runs nothing of it."""

import os


class _Legacy:
    """The hooks pip looks for when a package names no backend."""

    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, metadata_directory, config_settings=None):
        name, version = os.environ["GOPEFT_SDIST"].split()
        folder = f"{name}-{version}.dist-info"
        os.mkdir(os.path.join(metadata_directory, folder))
        with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as f:
            f.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return folder


__legacy__ = _Legacy()
