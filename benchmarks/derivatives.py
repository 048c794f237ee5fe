"""The derivatives of one `ga` iteration, by the hand-written code and by plain autograd, on the same rows and parameters.

An iteration takes the gradient of the policy's surrogate and of the value function's loss over the batch, Hessian-vector products of the
KL of each on a tenth of the rows, and the gradient of the classifier's loss. `jobs` gives all of it as (hand-written, autograd) pairs of
functions that return the same vectors; iteration.py times them.
"""

import torch

from policyopt.nn import views

NUM_PRODUCTS = 10  # of a conjugate gradient


def forward(net, net_P, x_B_Di):
    """The outputs of a tanh net from its flat parameters, as one writes it for autograd."""
    params = views(net_P, net.shapes)
    for i in range(0, len(params) - 2, 2):
        x_B_Di = torch.tanh(torch.addmm(params[i + 1], x_B_Di, params[i]))
    return torch.addmm(params[-1], x_B_Di, params[-2])


def gradient(loss, theta_P):
    with torch.enable_grad():
        theta_P = theta_P.clone().requires_grad_()
        return torch.autograd.grad(loss(theta_P), theta_P)[0]


def hvp(loss, theta_P):
    """v ↦ H v by differentiating twice, the first derivative once for all products."""
    with torch.enable_grad():
        theta_P = theta_P.clone().requires_grad_()
        (grad_P,) = torch.autograd.grad(loss(theta_P), theta_P, create_graph=True)
    return lambda v_P: torch.autograd.grad(grad_P, theta_P, v_P, retain_graph=True)[0]


def products(make, v_P):
    """NUM_PRODUCTS products with the result of make(), which is part of the cost; returns the last."""
    h = make()
    for _ in range(NUM_PRODUCTS):
        out_P = h(v_P)
    return out_P


def jobs(opt, trajs, rng):
    """{name: (hand-written, autograd)} for an ImitationOptimizer with a TransitionClassifier, finite actions and tanh nets."""
    policy, vf, reward = opt.policy, opt.vf, opt.reward
    obs, a, t = trajs.obs.stacked, policy.action_tensor(trajs.a.stacked), trajs.time.stacked
    num, rows = len(obs), rng.choice(len(obs), size=len(obs) // 10)
    x, x_vf = policy.normalized_obs(obs), vf.inputs(obs, t)
    x_d = reward._inputs(reward._norm_inputs(obs, None), t)
    num_expert = min(num, len(opt.expert.obs_N_Do))  # stand-ins: which rows they are does not matter here
    x_d, index = torch.cat([x_d, x_d[:num_expert]]), torch.cat([a, a[:num_expert]])
    labels = torch.cat([torch.zeros(num, dtype=x.dtype), torch.ones(num_expert, dtype=x.dtype)])
    weight = torch.where(labels > 0, 1 / num_expert, 1 / num).to(x.dtype)
    adv, target = (torch.as_tensor(rng.standard_normal(num)).to(x.dtype) for _ in range(2))
    v_policy, v_vf = (torch.as_tensor(rng.standard_normal(len(m.theta_P))).to(x.dtype) for m in (policy, vf))

    def logp(theta_P, x_B_Do):
        return torch.log_softmax(forward(policy.net, theta_P, x_B_Do), dim=1)

    old_B_K, x_few, x_vf_few = logp(policy.theta_P, x), x[rows], x_vf[rows]
    logp_old_B, old_few = old_B_K.gather(1, a)[:, 0], logp(policy.theta_P, x_few)

    def surrogate(theta_P):
        return ((logp(theta_P, x).gather(1, a)[:, 0] - logp_old_B).exp() * adv).mean()

    def kl(theta_P):
        return (old_few.exp() * (old_few - logp(theta_P, x_few))).sum(1).mean()

    def vf_loss(theta_P):
        return -((forward(vf.net, theta_P, x_vf)[:, 0] - target) ** 2).mean()

    v_old_few = forward(vf.net, vf.theta_P, x_vf_few)

    def vf_kl(theta_P):
        return ((v_old_few - forward(vf.net, theta_P, x_vf_few)) ** 2).mean()

    def classifier_loss(theta_P):
        s = forward(reward.net, theta_P, x_d).gather(1, index)[:, 0]
        softplus, p = torch.nn.functional.softplus(s, threshold=50), torch.sigmoid(s)
        return (weight * (softplus - labels * s - reward.options.reward_ent_reg_weight * (softplus - p * s))).sum()

    def by_hand_surrogate():
        return policy.logprob_gradient(x, a, lambda logp_B, r: torch.exp(logp_B - logp_old_B[r]) * adv[r] / num)[1]

    def by_hand_classifier():
        return reward.loss_gradient(x_d, index, labels, weight)[1]

    return {
        'policy gradient': (by_hand_surrogate, lambda: gradient(surrogate, policy.theta_P)),
        'policy products': (
            lambda: products(lambda: policy.kl_hvp(x_few), v_policy), lambda: products(lambda: hvp(kl, policy.theta_P), v_policy),
        ),
        'value gradient': (lambda: vf.objective_gradient(x_vf, target)[2], lambda: gradient(vf_loss, vf.theta_P)),
        'value products': (lambda: products(lambda: vf.kl_hvp(x_vf_few), v_vf), lambda: products(lambda: hvp(vf_kl, vf.theta_P), v_vf)),
        'classifier gradient': (by_hand_classifier, lambda: gradient(classifier_loss, reward.theta_P)),
    }  # fmt: skip
