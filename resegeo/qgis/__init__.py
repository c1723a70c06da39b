"""QGIS: a Processing provider that runs resegeo's commands, carried in the package as data."""
