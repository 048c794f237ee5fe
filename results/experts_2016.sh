# The expert policies of 2016 as arguments of im_pipeline.py --set. Source it in the root of the checkout: . results/experts_2016.sh
# The policies are part of the original code's repository: put its expert_policies/classic and expert_policies/modern
# into expert_policies/2016/.
P=expert_policies/2016
CLASSIC="tasks.cartpole.policy=$P/classic/CartPole-v0.h5/snapshots/iter0000100
  tasks.mountaincar.policy=$P/classic/MountainCar-v0.h5/snapshots/iter0000100
  tasks.acrobot.policy=$P/classic/Acrobot-v0.h5/snapshots/iter0000100"
MUJOCO="tasks.hopper.policy=$P/modern/log_Hopper-v0_3.h5/snapshots/iter0000500
  tasks.walker.policy=$P/modern/walker_eb5b2e_1.h5/snapshots/iter0000480
  tasks.ant.policy=$P/modern/log_Ant-v1_0.h5/snapshots/iter0000500
  tasks.halfcheetah.policy=$P/modern/log_HalfCheetah-v0_2.h5/snapshots/iter0000500"
REACHER="tasks.reacher.policy=$P/modern/log_Reacher-v1_4.h5/snapshots/iter0000500"
