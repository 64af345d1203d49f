"""Neural networks: modules, their functions (`nn.functional`) and initial values (`nn.init`).

Source: https://docs.pytorch.org/docs/stable/nn.html
"""

from gpunn.nn import init as init
from gpunn.nn import parameter as parameter
from gpunn.nn.container import Container as Container
from gpunn.nn.container import ModuleDict as ModuleDict
from gpunn.nn.container import ModuleList as ModuleList
from gpunn.nn.container import ParameterDict as ParameterDict
from gpunn.nn.container import ParameterList as ParameterList
from gpunn.nn.container import Sequential as Sequential
from gpunn.nn.module import Module as Module
from gpunn.nn.parameter import Buffer as Buffer
from gpunn.nn.parameter import Parameter as Parameter
from gpunn.nn.parameter import UninitializedBuffer as UninitializedBuffer
from gpunn.nn.parameter import UninitializedParameter as UninitializedParameter
from gpunn.nn.shape import Flatten as Flatten
from gpunn.nn.shape import Identity as Identity
from gpunn.nn.shape import Unflatten as Unflatten

from gpunn.nn import modules as modules  # isort: skip  (names what is above)
