"""Stores of draws as a whole: fill, inspect, join, export."""

from vbinfer.draws.export import export as export
from vbinfer.draws.manage import StoreStatus as StoreStatus
from vbinfer.draws.manage import load_series as load_series
from vbinfer.draws.manage import merge_stores as merge_stores
from vbinfer.draws.manage import simulate_store as simulate_store
