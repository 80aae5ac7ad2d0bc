"""Tests of live sources, against servers that misbehave on command."""
