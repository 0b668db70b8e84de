"""Pictures of runs, sweeps and predictions: matplotlib figures, to be shown or saved."""

from funcnet.plots.curves import *
from funcnet.plots.predictions import *
from funcnet.plots.sweeps import *
