"""Power and state of the machine while something is timed: sysfs on x86 and Jetson, NVML on desktop NVIDIA.

::

    sysfs.py     small files read fast
    sensor.py    what a sensor is, and what it says at one moment
    rapl.py  cpu.py  jetson.py  nvidia.py     one kind of sensor each, found below a root folder
    monitor.py   all of them, asked from a thread while a turn is timed
    watched.py   what one turn gave, as plain data, and the state of a row from its turns
"""
