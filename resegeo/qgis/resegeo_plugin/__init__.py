"""A Processing provider for QGIS that runs resegeo's commands."""


def classFactory(iface):
    """Build the plugin; QGIS calls this."""
    from .provider import Plugin

    return Plugin()
