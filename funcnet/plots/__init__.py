"""Pictures of runs, sweeps and predictions: matplotlib figures, to be shown or saved."""

from funcnet.plots.curves import *
from funcnet.plots.gradients import *
from funcnet.plots.images import *
from funcnet.plots.layers import *
from funcnet.plots.predictions import *
from funcnet.plots.search import *
from funcnet.plots.sweeps import *
