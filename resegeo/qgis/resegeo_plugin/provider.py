"""The plugin and its provider: they register the algorithms, nothing else."""

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS


class Provider(QgsProcessingProvider):
    """resegeo's algorithms in the toolbox, the modeler and qgis_process."""

    def id(self):
        """Name in scripts: ``resegeo:segment``."""
        return "resegeo"

    def name(self):
        """Name in the toolbox."""
        return "resegeo"

    def longName(self):
        """Name with what it does."""
        return "resegeo (segment by words)"

    def icon(self):
        """The usual icon."""
        return QIcon()

    def loadAlgorithms(self):
        """Register one algorithm a command."""
        for kind in ALGORITHMS:
            self.addAlgorithm(kind())


class Plugin:
    """What QGIS loads and unloads."""

    def __init__(self):
        """Begin without a provider."""
        self.provider = None

    def initProcessing(self):
        """Register the provider; qgis_process calls this alone."""
        self.provider = Provider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Register the provider in the desktop."""
        self.initProcessing()

    def unload(self):
        """Take the provider out again."""
        QgsApplication.processingRegistry().removeProvider(self.provider)
