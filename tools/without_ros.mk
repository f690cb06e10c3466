# Without ROS: everything from PyPI into .venv.

WITH_ROS :=
DEMO = $(VENV)/bin/monet-demo

$(STAMPS)/venv:
	@tools/check_space.sh $(VENV) 9
	@python=$$(tools/find_python.sh) && echo "Making $(VENV) with $$python" && "$$python" -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/msgs: $(MSGS_FILES) | $(STAMPS)/venv
	@tools/find_compiler.sh $(PY)
	@echo "Building monet_perception_msgs (about a minute)"
	@$(INSTALL) --force-reinstall --no-deps ./monet_perception_msgs
	@touch $@

# Without TensorFlow, Lightning and Gradio, which are half of the whole.
$(STAMPS)/demo: $(PACKAGE_FILES) $(STAMPS)/msgs
	@echo "Installing what the nodes need (torch is 3 GB: minutes, the first time)"
	@$(INSTALL) --editable '.[ros,demo]'
	@touch $@

$(STAMPS)/test: $(STAMPS)/demo
	@echo "Installing what training, rendering and the tests need"
	@$(INSTALL) --editable '.[ros,demo,train,render,tensorflow,explore,openvino,colcon,test,lint]'
	@touch $@
