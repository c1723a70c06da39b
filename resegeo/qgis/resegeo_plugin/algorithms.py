"""One algorithm a command: parameters in, arguments out, styled results loaded."""

from pathlib import Path

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputString,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
)

from .runner import run

SEGMENTS = ["(the model's own)", "none", "superpixels"]


class Command(QgsProcessingAlgorithm):
    """What all algorithms share."""

    title = ""
    help = ""

    def createInstance(self):
        """Build another one; QGIS asks for it."""
        return type(self)()

    def name(self):
        """Name in scripts."""
        return type(self).__name__.lower()

    def displayName(self):
        """Name in the toolbox."""
        return self.title

    def shortHelpString(self):
        """Text beside the parameters."""
        return self.help

    def load(self, context, path, name):
        """Have a result loaded when the algorithm has ended; its style lies beside or inside it."""
        if context.project() is not None:
            details = QgsProcessingContext.LayerDetails(name, context.project())
            context.addLayerToLoadOnCompletion(str(path), details)

    def words(self, parameters, context):
        """The class file that was given, or one written for the words that were typed."""
        given = self.parameterAsFile(parameters, "PROMPTS", context)
        typed = self.parameterAsString(parameters, "WORDS", context)
        if given and typed:
            raise QgsProcessingException("Both a class file and words are given; leave one of them empty.")
        if given:
            return given
        names = [word.strip() for word in typed.replace(";", ",").split(",") if word.strip()]
        if not names:
            raise QgsProcessingException("Give words, such as: water, forest, road; or a class file.")
        import json
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="resegeo-words-"))
        path = folder / "words.yml"
        path.write_text(json.dumps({"classes": names}), "utf-8")  # JSON is YAML
        return str(path)

    def add_words(self):
        """Declare the two ways to name classes."""
        self.addParameter(
            QgsProcessingParameterString("WORDS", "Words, separated by commas", "", optional=True, multiLine=False)
        )
        self.addParameter(
            QgsProcessingParameterFile("PROMPTS", "or a class file (YAML)", extension="yml", optional=True)
        )

    def advanced(self, parameter):
        """Declare a parameter that is folded away."""
        parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(parameter)

    def add_shapes(self, add):
        """Declare what becomes of the outlines of polygons."""
        text = QgsProcessingParameterString
        add(text("MIN_AREA", "Smallest area: 20 or 20px, 50m2, 0.5ha", "", optional=True))
        add(text("SIMPLIFY", "Simplify borders by: 1.5 or 1.5px, 2m", "", optional=True))
        add(QgsProcessingParameterBoolean("SMOOTH", "Smooth outlines", False))
        add(text("REGULARIZE", "Right-angled outlines too of classes such as: building", "", optional=True))

    def shapes(self, parameters, context):
        """Options for the outlines of polygons."""
        found = []
        flags = {"MIN_AREA": "--min-area", "SIMPLIFY": "--simplify", "REGULARIZE": "--regularize"}
        for key, flag in flags.items():
            value = self.parameterAsString(parameters, key, context).strip()
            if value:
                found += [flag, value]
        return [*found, "--smooth"] if self.parameterAsBool(parameters, "SMOOTH", context) else found

    def results(self, printed, context):
        """Load what a run printed the paths of, and name it for scripts and models."""
        found = {}
        for line in printed:
            path = Path(line)
            if line.endswith(".classes.tif"):
                found["RASTER"] = line
                self.load(context, path, path.name.removesuffix(".tif"))
            elif path.suffix in (".gpkg", ".shp", ".geojson", ".fgb", ".kml"):
                found["POLYGONS"] = line
                self.load(context, path, f"{path.stem} polygons")
            elif path.suffix == ".png":
                found["PICTURE"] = line
            elif path.suffix == ".json" and not line.endswith(".stac.json"):
                found["REPORT"] = line
            elif path.suffix == ".qgz":
                found["PROJECT"] = line
        return found

    def add_results(self):
        """Declare what a run leaves."""
        self.addOutput(QgsProcessingOutputRasterLayer("RASTER", "Class raster"))
        self.addOutput(QgsProcessingOutputVectorLayer("POLYGONS", "Polygons"))
        self.addOutput(QgsProcessingOutputFile("PICTURE", "Picture"))
        self.addOutput(QgsProcessingOutputFile("PROJECT", "Project"))
        self.addOutput(QgsProcessingOutputFile("REPORT", "Report"))


def source_of(layer):
    """Path or URL of a layer's file."""
    return layer.source().split("|")[0]


class Segment(Command):
    """``resegeo segment SCENE``."""

    title = "Segment a scene by words"
    help = (
        "Segments a raster layer by words: a class raster, polygons and a picture, styled. The same run again "
        "continues where an interrupted one stopped."
    )

    def initAlgorithm(self, configuration=None):
        """Declare the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("SCENE", "Scene"))
        self.add_words()
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder for the results", optional=True))
        number = QgsProcessingParameterNumber
        self.advanced(
            number("GSD", "Pixel size that the model sees, in metres", number.Double, optional=True, minValue=0)
        )
        self.add_shapes(self.advanced)
        self.advanced(QgsProcessingParameterString("BANDS", "Bands for red, green, blue", "", optional=True))
        self.advanced(QgsProcessingParameterString("MODEL", "Model (empty: the bundled one)", "", optional=True))
        self.advanced(QgsProcessingParameterEnum("SEGMENTS", "Segments", SEGMENTS, defaultValue=0))
        self.advanced(
            QgsProcessingParameterVectorLayer(
                "AOI", "Area of interest", [QgsProcessing.TypeVectorPolygon], optional=True
            )
        )
        self.advanced(QgsProcessingParameterBoolean("OVERWRITE", "Replace results of another run", False))
        self.add_results()

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        scene = self.parameterAsRasterLayer(parameters, "SCENE", context)
        if scene is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "SCENE"))
        arguments = ["segment", source_of(scene), "--prompts", self.words(parameters, context)]
        folder = self.parameterAsString(parameters, "OUTPUT", context)
        if folder:
            arguments += ["-o", folder]
        if parameters.get("GSD") is not None:
            arguments += ["--gsd", str(self.parameterAsDouble(parameters, "GSD", context))]
        arguments += self.shapes(parameters, context)
        for key, flag in (("BANDS", "--bands"), ("MODEL", "--model")):
            value = self.parameterAsString(parameters, key, context)
            if value:
                arguments += [flag, value]
        chosen = self.parameterAsEnum(parameters, "SEGMENTS", context)
        if chosen:
            arguments += ["--segments", SEGMENTS[chosen]]
        region = self.parameterAsVectorLayer(parameters, "AOI", context)
        if region is not None:
            arguments += ["--aoi", source_of(region)]
        if self.parameterAsBool(parameters, "OVERWRITE", context):
            arguments.append("--overwrite")
        return self.results(run(arguments, feedback), context)


class Relabel(Command):
    """``resegeo segment STORE``: other words for a finished scene."""

    title = "Other words or examples for a finished scene"
    help = (
        "Takes the store (.store.zarr) of a finished run and other words: seconds, no second look at a pixel. A "
        "layer of examples, points, lines or polygons with a class each, corrects the words."
    )

    def initAlgorithm(self, configuration=None):
        """Declare the parameters."""
        self.addParameter(
            QgsProcessingParameterFile("STORE", "Store of a finished run", QgsProcessingParameterFile.Folder)
        )
        self.add_words()
        self.addParameter(
            QgsProcessingParameterVectorLayer(
                "EXAMPLES", "Examples that correct the words", [QgsProcessing.TypeVectorAnyGeometry], optional=True
            )
        )
        self.addParameter(QgsProcessingParameterField("FIELD", "Field of their class", "", "EXAMPLES", optional=True))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder for the results", optional=True))
        self.advanced(QgsProcessingParameterBoolean("OVERWRITE", "Replace results of another run", False))
        self.add_results()

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        store = self.parameterAsString(parameters, "STORE", context)
        arguments = ["segment", store, "--prompts", self.words(parameters, context)]
        if self.parameterAsVectorLayer(parameters, "EXAMPLES", context) is not None:
            # A layer that is no file, or of which a part is chosen, is written to one first.
            examples = self.parameterAsCompatibleSourceLayerPath(
                parameters, "EXAMPLES", context, ["gpkg", "geojson", "shp", "fgb"], "gpkg", feedback
            )
            arguments += ["--examples", examples]
            field = self.parameterAsString(parameters, "FIELD", context)
            arguments += ["--field", field] if field else []
        folder = self.parameterAsString(parameters, "OUTPUT", context)
        if folder:
            arguments += ["-o", folder]
        if self.parameterAsBool(parameters, "OVERWRITE", context):
            arguments.append("--overwrite")
        return self.results(run(arguments, feedback), context)


class Vectorize(Command):
    """``resegeo vectorize RASTER``."""

    title = "Polygons of a class raster"
    help = "Draws the polygons of a class raster of resegeo, with a minimum mapping unit and simplified borders."

    def initAlgorithm(self, configuration=None):
        """Declare the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("RASTER", "Class raster"))
        self.add_shapes(self.addParameter)
        self.addParameter(
            QgsProcessingParameterFileDestination("POLYGONS", "Polygons", "GeoPackage (*.gpkg)", optional=False)
        )

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        raster = self.parameterAsRasterLayer(parameters, "RASTER", context)
        if raster is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "RASTER"))
        output = self.parameterAsFileOutput(parameters, "POLYGONS", context)
        arguments = ["vectorize", source_of(raster), "-o", output, "--overwrite", *self.shapes(parameters, context)]
        run(arguments, feedback)
        self.load(context, output, Path(output).stem)
        return {"POLYGONS": output}


class Evaluate(Command):
    """``resegeo evaluate PREDICTION TRUTH``."""

    title = "How right is a class raster?"
    help = "Compares a class raster of resegeo with a label raster or polygons: IoU, F1, precision, recall, accuracy."

    def initAlgorithm(self, configuration=None):
        """Declare the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("PREDICTION", "Class raster"))
        self.addParameter(QgsProcessingParameterFile("TRUTH", "Truth: label raster, mask or polygons"))
        self.addParameter(
            QgsProcessingParameterString(
                "MAP", "What its values mean, such as 255=road,0=background", "", optional=True
            )
        )
        self.addParameter(QgsProcessingParameterString("FIELD", "Field that names the class", "", optional=True))
        self.addOutput(QgsProcessingOutputString("TABLE", "Table"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        prediction = self.parameterAsRasterLayer(parameters, "PREDICTION", context)
        if prediction is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "PREDICTION"))
        arguments = ["evaluate", source_of(prediction), self.parameterAsFile(parameters, "TRUTH", context)]
        for key, flag in (("MAP", "--map"), ("FIELD", "--field")):
            value = self.parameterAsString(parameters, key, context)
            if value:
                arguments += [flag, value]
        return {"TABLE": "\n".join(run(arguments, feedback))}


class Compare(Command):
    """``resegeo compare BEFORE AFTER``."""

    title = "What changed between two class rasters"
    help = (
        "Compares two class rasters of one area: a table in ha, a raster and polygons of the changes. Most of what "
        "differs is error, not change: give a smallest area, and keep only what both maps are sure of."
    )

    def initAlgorithm(self, configuration=None):
        """Declare the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("BEFORE", "Class raster before"))
        self.addParameter(QgsProcessingParameterRasterLayer("AFTER", "Class raster after"))
        self.addParameter(
            QgsProcessingParameterString("MIN_AREA", "Smallest change: 20 or 20px, 0.1ha", "", optional=True)
        )
        self.addParameter(QgsProcessingParameterBoolean("ONLY_SURE", "Only where both maps are sure", False))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder for the results"))
        self.advanced(QgsProcessingParameterBoolean("OVERWRITE", "Replace earlier results", False))
        self.addOutput(QgsProcessingOutputRasterLayer("RASTER", "Changes"))
        self.addOutput(QgsProcessingOutputVectorLayer("POLYGONS", "Polygons of the changes"))
        self.addOutput(QgsProcessingOutputFile("TABLE", "Table"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        arguments = ["compare"]
        for key in ("BEFORE", "AFTER"):
            layer = self.parameterAsRasterLayer(parameters, key, context)
            if layer is None:
                raise QgsProcessingException(self.invalidRasterError(parameters, key))
            arguments.append(source_of(layer))
        arguments += ["-o", self.parameterAsString(parameters, "OUTPUT", context)]
        least = self.parameterAsString(parameters, "MIN_AREA", context).strip()
        arguments += ["--min-area", least] if least else []
        for key, flag in (("ONLY_SURE", "--only-sure"), ("OVERWRITE", "--overwrite")):
            if self.parameterAsBool(parameters, key, context):
                arguments.append(flag)
        found = {}
        keys = {".tif": "RASTER", ".gpkg": "POLYGONS", ".csv": "TABLE"}
        for line in run(arguments, feedback):
            path = Path(line)
            if path.suffix in keys:
                found[keys[path.suffix]] = line
                if path.suffix != ".csv":
                    self.load(context, path, path.stem)
        return found


ALGORITHMS = [Segment, Relabel, Vectorize, Evaluate, Compare]
