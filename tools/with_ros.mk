# With /opt/ros/jazzy sourced: ROS's own packages, colcon into install/, and in .venv what ROS does not bring.

ifneq ($(ROS_DISTRO),jazzy)
$(error ROS 2 $(ROS_DISTRO) is sourced, monet_perception is for jazzy. In a shell without ROS, make uses PyPI's ROS wheels)
endif

# ROS's setup files read variables that need not be set.
WITH_ROS = set +u && source install/setup.bash &&
DEMO = install/monet_perception/lib/monet_perception/demo
COLCON = $(PY) -m colcon build --base-paths . monet_perception_msgs

# ROS's Python, and an environment that sees its packages.
$(STAMPS)/venv:
	@tools/check_space.sh $(VENV) 9
	@python=$$(PYTHON=/usr/bin/python3 tools/find_python.sh) && echo "Making $(VENV) with $$python" && \
	    "$$python" -m venv --system-site-packages $(VENV)
	@touch $(VENV)/COLCON_IGNORE
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dependencies: $(PACKAGE_FILES) | $(STAMPS)/venv
	@echo "Installing what the nodes need (torch is 3 GB: minutes, the first time)"
	@$(INSTALL) 'setuptools<80' colcon-common-extensions
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(STAMPS)/msgs: $(MSGS_FILES) | $(STAMPS)/dependencies
	$(COLCON) --packages-select monet_perception_msgs
	@touch $@

# Its own line for the root package, so that the messages are not built again for a changed launch file. Symbolic links, so that
# a change of Python code needs no build.
$(STAMPS)/demo: $(STAMPS)/dependencies $(STAMPS)/msgs
	$(COLCON) --packages-select monet_perception --symlink-install
	@touch $@

$(STAMPS)/test: $(STAMPS)/demo
	@echo "Installing what training, rendering and the tests need"
	@$(INSTALL) --editable '.[demo,train,render,tensorflow,explore,openvino,test,lint]'
	@touch $@
