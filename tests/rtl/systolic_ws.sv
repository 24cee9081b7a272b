// A weight-stationary (or input-stationary) systolic array, int8 into int32: docs/pe-array.md in
// SystemVerilog. model::WeightGrid must equal it in every register and cycle.

module ws_pe (
    input logic clk,
    input logic rst,
    // from the left, and on to the right
    input logic signed [7:0] a_value_in,
    input logic a_valid_in,
    input logic a_first_in,
    output logic signed [7:0] a_value,
    output logic a_valid,
    output logic a_first,
    // from above, and on down
    input logic signed [31:0] sum_in,
    input logic sum_valid_in,
    output logic signed [31:0] sum,
    output logic sum_valid,
    // weights, one row down a cycle while the column loads
    input logic load_enable,
    input logic load_first,
    input logic top,
    input logic signed [7:0] shadow_in,
    input logic filled_in,
    output logic signed [7:0] shadow,
    output logic signed [7:0] weight,
    output logic filled
);
  logic signed [7:0] used;
  logic signed [15:0] product;
  logic reached;

  assign used = a_first_in ? shadow : weight;
  assign product = a_value_in * used;
  assign reached = top || (!load_first && filled_in);

  always_ff @(posedge clk) begin
    if (rst) begin
      {a_value, a_valid, a_first} <= '0;
      {sum, sum_valid} <= '0;
      {shadow, weight, filled} <= '0;
    end else begin
      a_value <= a_value_in;
      a_valid <= a_valid_in;
      a_first <= a_first_in;
      sum_valid <= sum_valid_in;
      if (a_valid_in) begin
        weight <= used;
        sum <= sum_in + 32'(product);
      end else begin
        sum <= sum_in;
      end
      if (load_enable) begin
        filled <= reached;
        if (reached) shadow <= shadow_in;
      end
    end
  end
endmodule

module systolic_ws #(
    parameter int R = 4,
    parameter int C = 4
) (
    input logic clk,
    input logic rst,
    input logic signed [7:0] a_value_in[R],
    input logic a_valid_in[R],
    input logic a_first_in[R],
    input logic signed [7:0] load_weight[C],
    input logic load_enable[C],
    input logic load_first[C],
    output logic signed [31:0] sum_out[C],
    output logic sum_valid_out[C],
    // all registers, for the comparison
    output logic signed [7:0] a_value[R][C],
    output logic a_valid[R][C],
    output logic a_first[R][C],
    output logic signed [31:0] sum[R][C],
    output logic sum_valid[R][C],
    output logic signed [7:0] shadow[R][C],
    output logic signed [7:0] weight[R][C],
    output logic filled[R][C]
);
  for (genvar i = 0; i < R; ++i) begin : row
    for (genvar j = 0; j < C; ++j) begin : column
      logic signed [7:0] from_left, shadow_above;
      logic valid_left, first_left, valid_above, filled_above;
      logic signed [31:0] sum_above;

      if (j == 0) begin : left_edge
        assign from_left = a_value_in[i];
        assign valid_left = a_valid_in[i];
        assign first_left = a_first_in[i];
      end else begin : inside_row
        assign from_left = a_value[i][j-1];
        assign valid_left = a_valid[i][j-1];
        assign first_left = a_first[i][j-1];
      end
      if (i == 0) begin : top_edge
        assign sum_above = '0;
        assign valid_above = valid_left;
        assign shadow_above = load_weight[j];
        assign filled_above = 1'b0;
      end else begin : inside_column
        assign sum_above = sum[i-1][j];
        assign valid_above = sum_valid[i-1][j];
        assign shadow_above = shadow[i-1][j];
        assign filled_above = filled[i-1][j];
      end

      ws_pe pe (
          .clk,
          .rst,
          .a_value_in(from_left),
          .a_valid_in(valid_left),
          .a_first_in(first_left),
          .a_value(a_value[i][j]),
          .a_valid(a_valid[i][j]),
          .a_first(a_first[i][j]),
          .sum_in(sum_above),
          .sum_valid_in(valid_above),
          .sum(sum[i][j]),
          .sum_valid(sum_valid[i][j]),
          .load_enable(load_enable[j]),
          .load_first(load_first[j]),
          .top(i == 0),
          .shadow_in(shadow_above),
          .filled_in(filled_above),
          .shadow(shadow[i][j]),
          .weight(weight[i][j]),
          .filled(filled[i][j])
      );
    end
  end

  for (genvar j = 0; j < C; ++j) begin : bottom
    assign sum_out[j] = sum[R-1][j];
    assign sum_valid_out[j] = sum_valid[R-1][j];
  end
endmodule
