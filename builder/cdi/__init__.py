"""Devices by the Container Device Interface (CDI, github.com/cncf-tags/container-device-interface)."""
